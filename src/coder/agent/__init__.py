"""Shell: the workspace's side. Connects out to the server, is introduced to clients, serves them in the tunnel."""
