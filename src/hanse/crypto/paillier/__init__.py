"""Paillier's encryption on GMP: keys, arrays of encrypted fixed-point numbers, and what can be computed with them.

References:
  Paillier 1999, "Public-key cryptosystems based on composite degree residuosity classes", EUROCRYPT '99.
  Damgård, Jurik, Nielsen 2010, "A generalization of Paillier's public-key system with applications to electronic
  voting", International Journal of Information Security 9(6).
"""
