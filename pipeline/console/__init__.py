"""What commands print, how they show progress, and how they end."""
