"""What HullWorks starts beside itself, and what it looks for on a machine: private database, embedded parts, doctor."""
