"""Where `audit.verify` does its work: every stored byte of a log computed again, in either form of the log.

Promise: a changed bit is one finding at its place, not a cascade; what cannot be believed is passed over by name.
Never: trust a stored hash, column, node or tile, write, or stop at the first contradiction.

    database        the database form: the walk from checkpoint to checkpoint, and its judgement of each leaf
      file_check      the file as SQLite sees it: pages, schema, revision
      checkpoint_rows where batches end, and which of those ends are signed
      leaf_rows       the leaves as they are stored, in order and without gaps
      beside_rows     policy ids, sealed contents and floors, against what each leaf says
      tree_growth     the tree grown by the leaves, held to each signed root
      node_rows       the inner nodes that growth completes, against the stored ones
    pack            the exported form: the walk from block to block over the tiles
    disagreements   pure, both forms: which side to believe where bytes and hash disagree
    leaf_checks     pure, both forms: what the leaves must say about one another
    known_heads     pure, both forms: checkpoints from elsewhere against the growing tree
"""
