"""What was bought: purchases, budgets, recovery. No Prefect in here.

`states` is the life of a purchase as one pure table; `ledger` is that table on a database; `buying`, `keeping` and
`sweeping` are the three things that are done with it: buy once, keep what was bought, finish what nobody waits for.
"""
