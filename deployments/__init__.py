"""Files to run on: deployments, automations, containers. `prefect-kling init` writes them where they are wanted."""
