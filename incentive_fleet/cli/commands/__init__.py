"""One module a command. They parse, call one function, and print; what they call is usable without them."""
