"""The commands of the program, a file each: what it takes and what it does. Heavy imports wait until one runs."""
