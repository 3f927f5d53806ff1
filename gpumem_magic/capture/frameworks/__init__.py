"""What frameworks that the user has imported know of their memory. Nothing in here imports one."""
