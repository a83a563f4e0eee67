"""Services: the base class, and the modules that run one.

A request takes this way: `tasks` (the leader task reads and decodes), `dispatcher` (value, task or thread),
`tasks` or `threads` (carry out, encode the reply), the send queue.
"""
