"""What a command was given, told apart by its content."""
