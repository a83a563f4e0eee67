"""Services: the base class and what it takes to run one."""
