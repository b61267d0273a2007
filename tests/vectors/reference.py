#!/usr/bin/env python3
"""Known answers of the accelerator's kernels, computed from their definitions.

Every transform is the sum it is defined by, every conversion the formula of `core/src/ring/convert.rs` in
integers; nothing is shared with the Rust code but the definitions. Run without arguments, it writes
`kernels.json` beside itself (about a minute). `tests/tests/known_answers.rs` reads it.
"""

import hashlib
import json
import pathlib

MASK = (1 << 64) - 1
STEP = 0x9E3779B97F4A7C15


def mix(z):
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def draw(seed, name, q, index):
    stream = mix((seed + STEP * (name + 1)) & MASK) ^ q
    return mix((stream + STEP * (index + 1)) & MASK)


def residue(fill, word, q):
    if fill == "Random":
        return (word * q) >> 64
    if fill == "Top":
        return q - 1
    return (0, 1, q // 2, q - 1)[word % 4]


def reverse(i, bits):
    return int(format(i, f"0{bits}b")[::-1], 2)


class Ring:
    def __init__(self, log_degree, q):
        self.log, self.n, self.q = log_degree, 1 << log_degree, q
        assert (q - 1) % (2 * self.n) == 0 and pow(3, q - 1, q) == 1
        g = 2
        while pow(g, (q - 1) // 2, q) != q - 1:
            g += 1
        psi = pow(g, (q - 1) // (2 * self.n), q)
        self.powers = [1]
        for _ in range(2 * self.n - 1):
            self.powers.append(self.powers[-1] * psi % q)

    def forward(self, x):
        out = []
        for i in range(self.n):
            e = 2 * reverse(i, self.log) + 1
            out.append(sum(c * self.powers[e * j % (2 * self.n)] for j, c in enumerate(x)) % self.q)
        return out

    def inverse(self, y):
        exponents = [2 * reverse(i, self.log) + 1 for i in range(self.n)]
        scale = pow(self.n, -1, self.q)
        return [
            sum(c * self.powers[-e * j % (2 * self.n)] for e, c in zip(exponents, y)) * scale % self.q
            for j in range(self.n)
        ]

    def automorphism(self, y, g):
        out = []
        for i in range(self.n):
            e = (2 * reverse(i, self.log) + 1) * g % (2 * self.n)
            out.append(y[reverse((e - 1) // 2, self.log)])
        return out


class Bench:
    def __init__(self, log_degree, ordinary, special, digit, fill, seed):
        self.log, self.n = log_degree, 1 << log_degree
        self.q, self.p = ordinary, special
        self.rings = {q: Ring(log_degree, q) for q in ordinary + special}
        self.digit, self.fill, self.seed = digit, fill, seed

    def primes(self, basis):
        start, ordinary, special = basis
        return self.q[start:start + ordinary] + self.p[:special]

    def polynomial(self, basis, name):
        return [
            [residue(self.fill, draw(self.seed, name, q, i), q) for i in range(self.n)] for q in self.primes(basis)
        ]

    def scalars(self, basis, name):
        return [residue(self.fill, draw(self.seed, name, q, 0), q) for q in self.primes(basis)]

    def integers(self):
        def signed(word):
            return (word - (1 << 64) if word >> 63 else word) >> 2

        edges = {0: -((1 << 62) - 1), 1: (1 << 62) - 1, 2: 0, 3: -1}
        out = []
        for i in range(self.n):
            value = signed(draw(self.seed, 0, 0, i))
            if self.fill == "Top":
                value = (1 << 62) - 1
            elif self.fill == "Edges":
                value = edges.get(i % 8, value)
            out.append(value)
        return out

    def each(self, basis, f, *operands):
        return [[f(q, *entry) for entry in zip(*limbs)] for q, *limbs in zip(self.primes(basis), *operands)]

    def forward(self, basis, x):
        return [self.rings[q].forward(limb) for q, limb in zip(self.primes(basis), x)]

    def inverse(self, basis, x):
        return [self.rings[q].inverse(limb) for q, limb in zip(self.primes(basis), x)]

    def convert(self, source, x, target):
        primes = self.primes(source)
        product = 1
        for q in primes:
            product *= q
        width = min(q.bit_length() for q in primes) - 1
        inverses = [pow(product // q, -1, q) for q in primes]
        fractions = [(1 << (52 + width)) // q for q in primes]
        out = [[] for _ in self.primes(target)]
        for column in zip(*x):
            y = [c * inverse % q for c, inverse, q in zip(column, inverses, primes)]
            v = (sum((a * r) >> 52 for a, r in zip(y, fractions)) + (1 << (width - 1))) >> width
            value = sum(a * (product // q) for a, q in zip(y, primes)) - v * product
            for limb, p in zip(out, self.primes(target)):
                limb.append(value % p)
        return out

    def digits(self, count):
        return [(i, min(self.digit, count - i), 0) for i in range(0, count, self.digit)]

    def mod_up(self, basis, x):
        count = basis[1]
        raised = []
        for digit in self.digits(count):
            end = digit[0] + digit[1]
            coefficients = self.inverse(digit, x[digit[0]:end])
            whole = self.forward(basis, self.convert(digit, coefficients, basis))
            raised.append(whole[:digit[0]] + x[digit[0]:end] + whole[end:])
        return raised

    def mod_down(self, kept, drop, x):
        keep = (0, kept, 0)
        product = 1
        for q in self.primes(drop):
            product *= q
        rounded = self.forward(keep, self.convert(drop, self.inverse(drop, x[kept:]), keep))
        return self.each(keep, lambda q, a, b: (a - b) * pow(product, -1, q) % q, x[:kept], rounded)

    def inner(self, basis, raised):
        sums = []
        for name in (10, 40):
            total = [[0] * self.n for _ in self.primes(basis)]
            for d, digit in enumerate(raised):
                key = self.polynomial(basis, name + d)
                total = self.each(basis, lambda q, s, a, b: (s + a * b) % q, total, digit, key)
            sums += total
        return sums

    def hoisted_sums(self, basis, x0):
        count = basis[1]
        level, digits, primes = (0, count, 0), len(self.digits(count)), self.primes(basis)
        factor = 1
        for p in self.primes((0, 0, basis[2])):
            factor *= p
        x = [x0[:count], self.polynomial(level, 1)]
        lifted = [[[v * factor % q for v in limb] for q, limb in zip(primes, half)] for half in x]
        lifted = [half + [[0] * self.n for _ in range(basis[2])] for half in lifted]
        inner = self.inner(basis, [self.polynomial(basis, 70 + d) for d in range(digits)])
        halves = inner[:len(primes)], inner[len(primes):]

        def step(g, first, second):
            first = self.each(basis, lambda q, a, b: (a + b) % q, first, lifted[0])
            return [[self.rings[q].automorphism(limb, g) for q, limb in zip(primes, half)] for half in (first, second)]

        steps = [step(5, *halves), lifted, step(2 * self.n - 1, *reversed(halves))]
        repeat = 1 << (self.seed + 3 * len(primes)) % (self.log - 2)
        run = self.n // repeat
        stored = [self.polynomial(basis, 100 + j) for j in range(-(-2 * len(steps) // repeat))]
        out = []
        for g in range(2):
            for h in range(2):
                for i, q in enumerate(primes):
                    total = [0] * self.n
                    for b, rotated in enumerate(steps):
                        k = g * len(steps) + b
                        words = stored[k // repeat][i][k % repeat * run:][:run]
                        total = [(t + rotated[h][i][j] * words[j // repeat]) % q for j, t in enumerate(total)]
                    out.append(total)
        return out

    def choice(self, basis, count):
        return (3 * self.seed + len(self.primes(basis))) % count

    def few(self, basis):
        start, ordinary, special = basis
        return (start, min(ordinary, 1), min(special, 1))

    def weight(self, index):
        word = draw(self.seed, 200, 0, index)
        if self.fill == "Random":
            return (word & 0x7FFF) - (word & 0x8000)
        return 0x7FFF if self.fill == "Top" else (0, 1, -0x8000, 0x7FFF)[word % 4]

    def ntt_partial(self, basis, x):
        d = 8 << self.choice(basis, self.log - 2)
        blocks, out = self.n // d, []
        for q, limb in zip(self.primes(basis), x):
            powers, words = self.rings[q].powers, []
            for j in range(blocks):
                e = d * (2 * reverse(j, self.log - d.bit_length() + 1) + 1)
                roots = [powers[e * z % (2 * self.n)] for z in range(blocks)]
                words += [sum(limb[t + d * z] * r for z, r in enumerate(roots)) % q for t in range(d)]
            out.append(words)
        return out

    def odd_power_sums(self, basis, x):
        rows = [self.polynomial(basis, 1 + i) for i in range(5)]
        return [
            [sum(pow(w, i * (2 * a + 1), q) * row[p][j] for i, row in enumerate(rows)) % q for j, w in enumerate(x[p])]
            for a in range(4)
            for p, q in enumerate(self.primes(basis))
        ]

    def row_products(self, basis):
        k, inputs, sums = 1 << self.choice(basis, 5), 3, 2
        basis = self.few(basis)
        lanes = self.n // k
        bodies = [self.polynomial(basis, 1 + c) for c in range(inputs)]
        masks = [self.polynomial(basis, 10 + c) for c in range(inputs)]
        out = []
        for o in range(sums):
            def product(q, samples):
                # samples[r] has one polynomial in Y for each row r; the outputs are interleaved.
                rows = []
                for i in range(k):
                    weights = [self.weight(((o * k + i) * inputs * k) + r) for r in range(inputs * k)]
                    rows.append([sum(w * s[at] for w, s in zip(weights, samples)) % q for at in range(lanes)])
                return [rows[at % k][at // k] for at in range(self.n)]

            for p, q in enumerate(self.primes(basis)):
                out.append(product(q, [bodies[c][p][i::k] for c in range(inputs) for i in range(k)]))
            for j in range(k):
                for p, q in enumerate(self.primes(basis)):
                    samples = []
                    for c in range(inputs):
                        for i in range(k):
                            block = masks[c][p][(i - j) % k::k]
                            samples.append(block if i >= j else [-block[-1]] + block[:-1])
                    out.append(product(q, samples))
        return out

    def block_products(self, basis):
        d, terms = 8 << self.choice(basis, 3), 5
        basis = self.few(basis)
        left = [self.polynomial(basis, 1 + f) for f in range(terms)]
        right = [self.polynomial(basis, 10 + f) for f in range(terms)]
        return [
            [sum(l[p][at // d * d + t] * r[p][at] for l, r in zip(left, right)) % q for at in range(self.n)]
            for t in range(d)
            for p, q in enumerate(self.primes(basis))
        ]

    def run(self, kernel, basis):
        start, ordinary, special = basis
        x = self.polynomial(basis, 0)
        y, z = self.polynomial(basis, 1), self.polynomial(basis, 2)
        each = self.each

        def by(name, f, *operands):
            return [
                [f(q, s, *entry) for entry in zip(*limbs)]
                for q, s, *limbs in zip(self.primes(basis), self.scalars(basis, name), *operands)
            ]

        if kernel == "WriteSigned":
            return [[v % q for v in self.integers()] for q in self.primes(basis)]
        if kernel == "Copy":
            return y + y
        if kernel == "Clear":
            return [[0] * self.n for _ in x]
        if kernel == "NttForward":
            return self.forward(basis, x)
        if kernel == "NttInverse":
            return self.inverse(basis, x)
        if kernel == "AddAssign":
            return each(basis, lambda q, a, b: (a + b) % q, x, y)
        if kernel == "SubAssign":
            return each(basis, lambda q, a, b: (a - b) % q, x, y)
        if kernel == "NegateAssign":
            return each(basis, lambda q, a: -a % q, x)
        if kernel == "MultiplyAssign":
            return each(basis, lambda q, a, b: a * b % q, x, y)
        if kernel == "MultiplyAdd":
            return each(basis, lambda q, a, b, c: (a + b * c) % q, x, y, z)
        if kernel == "MultiplyScalarAssign":
            return by(1, lambda q, s, a: a * s % q, x)
        if kernel == "MultiplyScalarAdd":
            return by(2, lambda q, s, a, b: (a + s * b) % q, x, y)
        if kernel == "MultiplyScalarsAdd":
            for k in range(17):
                operand = (y, z)[k % 2]
                x = by(3 + k, lambda q, s, a, b: (a + s * b) % q, x, operand)
            return x
        if kernel == "AddScalarAssign":
            return by(1, lambda q, s, a: (a + s) % q, x)
        if kernel == "Automorphism":
            out = []
            for g in (5, 2 * self.n - 1, self.n + 3):
                out += [self.rings[q].automorphism(limb, g) for q, limb in zip(self.primes(basis), x)]
            return out
        if kernel == "AutomorphismAdd":
            for g in (5, 2 * self.n - 1, self.n + 3):
                image = [self.rings[q].automorphism(limb, g) for q, limb in zip(self.primes(basis), self.polynomial(basis, 1))]
                x = self.each(basis, lambda q, a, b: (a + b) % q, x, image)
            return x
        if kernel == "Repeat":
            n = self.n
            return [
                [limb[offset + i // repeat] for i in range(n)]
                for offset, repeat in ((0, 1), (n // 2 - 3, 2), (n - 8, n // 8))
                for limb in x
            ]
        if kernel == "Convert":
            half = min((ordinary + 1) // 2, 16)
            pairs = [
                ((start, half, 0), (start + half, ordinary - half, special)),
                ((start, min(ordinary, 16), 0), (0, 0, special)),
                ((start + ordinary - 1, 1, 0), (start, ordinary - 1, 0)),
                ((0, 0, special), (start, ordinary, 0)),
            ]
            out = []
            for source, target in pairs:
                if sum(source[1:]) and sum(target[1:]):
                    out += self.convert(source, self.polynomial(source, 0), target)
            return out
        if kernel == "Tensor":
            x1, y0, y1 = y, z, self.polynomial(basis, 3)
            return (
                each(basis, lambda q, a, b: a * b % q, x, y0)
                + each(basis, lambda q, a, b, c, d: (a * b + c * d) % q, x, y1, x1, y0)
                + each(basis, lambda q, a, b: a * b % q, x1, y1)
            )
        if kernel == "TensorAdd":
            x1, y0, y1 = y, z, self.polynomial(basis, 3)
            d0, d1, d2 = (self.polynomial(basis, k) for k in (4, 5, 6))
            for k in range(9):
                (a0, a1), (b0, b1) = (((x, x1), (y0, y1)), ((y0, y1), (y0, y1)), ((x, x1), (x, x1)))[k % 3]
                d0 = each(basis, lambda q, d, a, b: (d + a * b) % q, d0, a0, b0)
                d1 = each(basis, lambda q, d, a, b, e, f: (d + a * b + e * f) % q, d1, a0, b1, a1, b0)
                d2 = each(basis, lambda q, d, a, b: (d + a * b) % q, d2, a1, b1)
            return d0 + d1 + d2
        if kernel == "ModUp":
            return sum(self.mod_up(basis, x), [])
        if kernel == "InnerProduct":
            digits = range(len(self.digits(ordinary)))
            return self.inner(basis, [self.polynomial(basis, 70 + d) for d in digits])
        if kernel == "KeySwitch":
            return self.inner(basis, self.mod_up(basis, x))
        if kernel == "HoistedSums":
            return self.hoisted_sums(basis, x)
        if kernel == "NttPartial":
            return self.ntt_partial(basis, x)
        if kernel == "RowProducts":
            return self.row_products(basis)
        if kernel == "BlockProducts":
            return self.block_products(basis)
        if kernel == "OddPowerSums":
            return self.odd_power_sums(basis, x)
        if kernel in ("ModDown", "ModDownAdd"):
            out = []
            for kept, dropped in ((ordinary, special), (ordinary - 1, 0), (ordinary - 1, special)):
                drop = (kept, ordinary - kept, dropped)
                value = self.polynomial((0, ordinary, dropped), 0)
                if kernel == "ModDownAdd":
                    factor = 1
                    for p in self.primes((0, 0, dropped)):
                        factor *= p
                    level = (0, ordinary, 0)
                    addend = self.polynomial(level, 1)
                    sums = each(level, lambda q, a, b: (a + factor * b) % q, value[:ordinary], addend)
                    value = sums + value[ordinary:]
                out += self.mod_down(kept, drop, value)
            return out
        raise ValueError(kernel)


KERNELS = """WriteSigned Copy Clear NttForward NttInverse AddAssign SubAssign NegateAssign MultiplyAssign MultiplyAdd
MultiplyScalarAssign MultiplyScalarAdd MultiplyScalarsAdd AddScalarAssign Automorphism AutomorphismAdd Repeat Convert Tensor
TensorAdd ModUp InnerProduct
ModDown ModDownAdd KeySwitch HoistedSums NttPartial RowProducts BlockProducts OddPowerSums""".split()


def is_prime(n):
    if n % 2 == 0:
        return n == 2
    d, s = n - 1, 0
    while d % 2 == 0:
        d, s = d // 2, s + 1
    for a in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37):
        x = pow(a, d, n)
        if x not in (1, n - 1) and all((x := x * x % n) != n - 1 for _ in range(s - 1)):
            return False
    return True


def primes(log_degree, bits):
    out = []
    for b in bits:
        q = ((1 << b) - 2) // (2 << log_degree) * (2 << log_degree) + 1
        while q in out or not is_prime(q):
            q -= 2 << log_degree
        out.append(q)
    return out


def main():
    answers = []
    for log_degree, ordinary, special in (
        (10, (50, 40, 50, 40), (50, 50)),
        (10, (30, 28, 30, 28), (30, 30)),
        (10, (22, 50, 35), (49, 50)),
    ):
        all_primes = primes(log_degree, ordinary + special)
        q, p = all_primes[:len(ordinary)], all_primes[len(ordinary):]
        for fill, seed in (("Random", 1), ("Edges", 2)):
            bench = Bench(log_degree, q, p, 2, fill, seed)
            basis = (0, len(q), len(p))
            for kernel in KERNELS:
                limbs = bench.run(kernel, basis)
                words = b"".join(word.to_bytes(8, "little") for limb in limbs for word in limb)
                answers.append({
                    "kernel": kernel, "log_degree": log_degree, "ordinary": q, "special": p, "digit_size": 2,
                    "fill": fill, "seed": seed, "limbs": len(limbs), "sha256": hashlib.sha256(words).hexdigest(),
                })
    lines = ",\n".join(json.dumps(answer) for answer in answers)
    pathlib.Path(__file__).with_name("kernels.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
