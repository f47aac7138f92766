"""Who looks after it: the command line, dead letters, statements, embedded parts."""
