"""One key per subject beside the log: what is committed to or sealed under it lives as long as it.

Promise: destroying a subject's keys leaves every leaf and proof as it is and makes its commitments unprovable and its
sealed content unreadable; that is the erasure.  Never: a subject's name, or an unwrapped key, in a file.

    keyring         entry point `SubjectKeyring`: commit, seal, check, unseal, destroy; safe from several threads
    commitment      pure: what a leaf may say about content
    sealing         pure: content as it may lie beside a leaf
    key_encryption  pure but for its nonces: what the key-encryption key does - wrap, unwrap, mark
    derivation      pure: one key for each purpose
    key_file        the SQLite file of wrapped keys, and how a key leaves it for good

What destruction cannot reach: copies of the file made earlier, and blocks that a disk remapped.  Back it up on a short
cycle, apart from the log; a new key-encryption key makes old copies useless.
"""
