"""What a command prints, how it shows progress, and how it ends."""
