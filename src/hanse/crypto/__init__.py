"""Homomorphic encryption: sums of what nobody but the key's holders can read.

`additive` says what a scheme offers for sums of vectors; `bfv`, `ckks` and `paillier.scheme` are three. `paillier` is
also usable by itself, number by number, as learning across columns needs it. `key_transport` takes a secret key from
one site to another past a server that can't read it.

Everything here draws its randomness from the operating system, and nothing takes a seed.
"""
