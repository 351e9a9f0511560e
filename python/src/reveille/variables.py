"""The names of environment variables that more than one module knows."""

KEYS = "REVEILLE_ENCRYPTION_KEYS"
KEYS_FILE = "REVEILLE_ENCRYPTION_KEYS_FILE"
