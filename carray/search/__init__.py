"""A study's life: request, setup, session, ledger; its parts are in the folders below."""
