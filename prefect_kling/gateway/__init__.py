"""The gateway's HTTP API: client, request models and their rules, answers, errors, prices. Knows nothing of Prefect."""
