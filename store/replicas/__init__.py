"""Reading from streaming replicas of the database where they are fresh enough, and from the primary else."""
