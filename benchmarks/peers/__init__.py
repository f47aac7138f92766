"""Three well-known task libraries doing the fleet's job, one event at a time. They run in an environment of their own."""
