"""What tests, the demo and the benchmark share: hosts with a daemon of their own, terminals, domain XML."""
