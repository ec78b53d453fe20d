"""Search the log: a small read-only language, and pages in index order without a table scan.

Promise: what is found is exactly what the expression says of the leaf, whatever the clock did; a page costs a bounded
number of index seeks, and says honestly how far it looked.  Never: a change, a word of the filter inside SQL text, a
row shown (the reader shows leaves, from bytes).

    text -> `parser.parse_filter` -> `expression.Expression` -> `normal_form.alternatives` -> `pages.find_page`

`fields`, `expression`, `moments`, `tokens`, `parser`, `normal_form` and `leaf_values` are pure.  With a database
beneath: `time_map` (which stretches of the log can hold a time), `streams` (ordered seeks), `candidates` (one
alternative), `pages` (all of them, merged).
"""
