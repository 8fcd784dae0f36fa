"""Remote workspaces over an encrypted network of your own."""
