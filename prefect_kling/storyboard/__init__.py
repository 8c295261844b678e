"""The document a user writes, how it is read, and the plan made of it."""
