"""Writes paillier.json: Paillier from its textbook definition, in plain Python integers.

Nothing of Hanse and no library for large numbers is used. All that is drawn at random in earnest comes here from
SHAKE-256 of a label, so that anybody can run this again and get the same bytes.

    python tests/vectors/make_paillier.py > tests/vectors/paillier.json
"""

import hashlib
import json
import math

BITS = 2048


def drawn(label, bits):
    digest = hashlib.shake_256(f"hanse paillier test vectors: {label}".encode()).digest(bits // 8)
    return int.from_bytes(digest, "big")


def is_prime(number):
    """Miller and Rabin's test with the first 40 primes as bases."""
    bases = [p for p in range(2, 180) if all(p % d for d in range(2, int(p**0.5) + 1))][:40]
    odd, twos = number - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in bases:
        power = pow(base, odd, number)
        if power in (1, number - 1):
            continue
        for _ in range(twos - 1):
            power = power * power % number
            if power == number - 1:
                break
        else:
            return False
    return True


def prime(label):
    """p = 3 mod 4 with no prime below 2^16 in p or (p - 1) / 2, as a key of Hanse's has."""
    small = math.prod(p for p in range(3, 1 << 16, 2) if all(p % d for d in range(3, math.isqrt(p) + 1, 2)))
    for attempt in range(10**6):
        p = drawn(f"{label} {attempt}", BITS // 2) | (3 << (BITS // 2 - 2)) | 3
        if math.gcd(p * (p // 2), small) == 1 and is_prime(p):
            return p
    raise AssertionError


def main():
    p, q = prime("p"), prime("q")
    n, phi = p * q, (p - 1) * (q - 1)
    square, carmichael = n * n, phi // math.gcd(p - 1, q - 1)
    g = n + 1
    mu = pow((pow(g, carmichael, square) - 1) // n, -1, n)

    def encrypted(m, r):
        return pow(g, m, square) * pow(r, n, square) % square

    def decrypted(c):
        return (pow(c, carmichael, square) - 1) // n * mu % n

    x = drawn("x", BITS) % n
    h_s = pow(-x * x % n, n, square)
    messages = {"zero": 0, "one": 1, "largest": n - 1, "middle": n // 2, "random": drawn("m", BITS) % n}
    textbook, short = [], []
    for name, m in messages.items():
        r = drawn(f"r {name}", BITS) % n
        c = encrypted(m, r)
        assert decrypted(c) == m
        textbook.append({"m": hex(m), "r": hex(r), "c": hex(c)})
        r = drawn(f"short {name}", BITS // 2)
        c = pow(g, m, square) * pow(h_s, r, square) % square
        assert decrypted(c) == m
        short.append({"m": hex(m), "r": hex(r), "c": hex(c)})
    a, b, k = int(textbook[4]["c"], 16), int(textbook[2]["c"], 16), 12345
    computed = {
        "sum of random and largest": {"c": hex(a * b % square), "m": hex(decrypted(a * b % square))},
        "random times 12345": {"c": hex(pow(a, k, square)), "m": hex(decrypted(pow(a, k, square)))},
    }
    sums = computed["sum of random and largest"]["m"], computed["random times 12345"]["m"]
    assert sums == (hex((messages["random"] + n - 1) % n), hex(messages["random"] * k % n))
    print(  # noqa: T201
        json.dumps(
            {"p": hex(p), "q": hex(q), "x": hex(x), "h_s": hex(h_s), "textbook": textbook, "short": short} | computed,
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
