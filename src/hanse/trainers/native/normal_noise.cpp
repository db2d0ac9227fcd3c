// Standard normal numbers in bulk, made of ChaCha20's key stream by Box and Muller's transform.
//
// `trainers/private/noise.py` says what is computed, and computes the same in NumPy: the same bits. So every operation
// below is one that IEEE 754 rounds in one way only, in that file's order, and it must be compiled with
// -ffp-contract=off.

#include <cmath>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#elif defined(__AVX2__)
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif
#define UNROLL _Pragma("GCC unroll 16")

namespace {

typedef uint32_t Words __attribute__((vector_size(VECTOR_BYTES)));
typedef uint32_t Loose __attribute__((vector_size(VECTOR_BYTES), aligned(4), may_alias));

constexpr int LANES = VECTOR_BYTES / 4;
constexpr int BLOCKS = 16;          // of the key stream, made side by side: a group
constexpr int GROUP = 16 * BLOCKS;  // numbers of a group
constexpr int PAIRS = GROUP / 2;

inline Words all(uint32_t value) { return value - Words{}; }
inline Words turned(Words v, int by) { return (v << by) | (v >> (32 - by)); }

inline void quarter(Words& a, Words& b, Words& c, Words& d) {
  a += b, d = turned(d ^ a, 16);
  c += d, b = turned(b ^ c, 12);
  a += b, d = turned(d ^ a, 8);
  c += d, b = turned(b ^ c, 7);
}

// Word w of block `first + b` goes to words[w * BLOCKS + b]
void key_stream(const uint32_t* key, uint64_t first, uint32_t* words) {
  for (int b = 0; b < BLOCKS; b += LANES) {
    Words start[16] = {}, x[16];
    const uint32_t text[4] = {0x61707865, 0x3320646e, 0x79622d32, 0x6b206574};
    UNROLL for (int w = 0; w < 4; w++) start[w] = all(text[w]);
    UNROLL for (int w = 0; w < 8; w++) start[4 + w] = all(key[w]);
    for (int lane = 0; lane < LANES; lane++) {
      const uint64_t counter = first + b + lane;
      start[12][lane] = static_cast<uint32_t>(counter);
      start[13][lane] = static_cast<uint32_t>(counter >> 32);
    }
    UNROLL for (int w = 0; w < 16; w++) x[w] = start[w];
    for (int round = 0; round < 10; round++) {
      UNROLL for (int i = 0; i < 4; i++) quarter(x[i], x[4 + i], x[8 + i], x[12 + i]);
      UNROLL for (int i = 0; i < 4; i++) quarter(x[i], x[4 + (i + 1) % 4], x[8 + (i + 2) % 4], x[12 + (i + 3) % 4]);
    }
    UNROLL for (int w = 0; w < 16; w++) *reinterpret_cast<Loose*>(words + w * BLOCKS + b) = x[w] + start[w];
  }
}

inline float from_bits(int32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}
inline int32_t bits_of(float value) {
  int32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

// √(−2 ln((k + ½) / 2³²))
inline float radius(uint32_t k) {
  // u = 2ᵉ (1 + f) with 1 + f in [√½, √2); near 1 it is 1 − u that has all digits
  const uint32_t rest = ~k;
  const float u = (static_cast<float>(k) + 0.5f) * 0x1p-32f;
  const float v = (static_cast<float>(rest) + 0.5f) * 0x1p-32f;
  const int32_t shifted = bits_of(u) - 0x3f3504f3;
  const int32_t e = shifted >> 23;
  const float f = e ? from_bits((shifted & 0x7fffff) + 0x3f3504f3) - 1.0f : -v;
  const float z = f * f, ef = static_cast<float>(e);
  float y = 7.0376836292e-2f;
  y = y * f - 1.1514610310e-1f;
  y = y * f + 1.1676998740e-1f;
  y = y * f - 1.2420140846e-1f;
  y = y * f + 1.4249322787e-1f;
  y = y * f - 1.6668057665e-1f;
  y = y * f + 2.0000714765e-1f;
  y = y * f - 2.4999993993e-1f;
  y = y * f + 3.3333331174e-1f;
  y = y * f * z + ef * -2.12194440e-4f - 0.5f * z;
  return __builtin_sqrtf(-2.0f * (f + y + ef * 0.693359375f));
}

void normal(const uint32_t* words, float* out) {
  for (int i = 0; i < PAIRS; i++) {
    const float r = radius(words[i]);
    // the angle π j / 2³¹: quarters of a turn, and what is left, at most π/4
    const uint32_t j = words[PAIRS + i];
    const uint32_t quarters = (j + 0x20000000u) >> 30;
    const float t = static_cast<float>(static_cast<int32_t>(j - (quarters << 30))) * 1.46291807926715968e-9f;
    const float z = t * t;
    const float s = ((-1.9515295891e-4f * z + 8.3321608736e-3f) * z - 1.6666654611e-1f) * z * t + t;
    const float c = ((2.443315711809948e-5f * z - 1.388731625493765e-3f) * z + 4.166664568298827e-2f) * z * z -
                    0.5f * z + 1.0f;
    const int32_t odd = -static_cast<int32_t>(quarters & 1);
    const int32_t across = (odd & bits_of(s)) | (~odd & bits_of(c)), up = (odd & bits_of(c)) | (~odd & bits_of(s));
    out[i] = r * from_bits(across ^ static_cast<int32_t>(((quarters + 1) & 2) << 30));
    out[PAIRS + i] = r * from_bits(up ^ static_cast<int32_t>((quarters & 2) << 30));
  }
}

}  // namespace

extern "C" {

// Words of the key stream, `groups` times [16, BLOCKS], from block `first` on. key: 8 words.
void hanse_key_stream(const uint32_t* key, uint64_t first, int64_t groups, uint32_t* words) {
  for (int64_t i = 0; i < groups; i++) key_stream(key, first + i * BLOCKS, words + i * GROUP);
}

// n normal numbers, of the groups from block `first` of the key stream on.
void hanse_normal_noise(const uint32_t* key, uint64_t first, int64_t n, float* out) {
  alignas(64) uint32_t words[GROUP];
  alignas(64) float numbers[GROUP];
  for (int64_t done = 0; done < n; done += GROUP, first += BLOCKS) {
    key_stream(key, first, words);
    if (n - done >= GROUP) {
      normal(words, out + done);
    } else {
      normal(words, numbers);
      std::memcpy(out + done, numbers, (n - done) * sizeof(float));
    }
  }
}

// factor v + deviation z in place of the numbers v of several vectors; z as if they were one. lengths, at: [count].
void hanse_add_noise(const uint32_t* key, uint64_t first, int64_t count, const int64_t* lengths, float* const* at,
                     float factor, float deviation) {
  alignas(64) uint32_t words[GROUP];
  alignas(64) float numbers[GROUP];
  int64_t used = GROUP;
  for (int64_t i = 0; i < count; i++) {
    for (int64_t done = 0; done < lengths[i];) {
      if (used == GROUP) {
        key_stream(key, first, words);
        normal(words, numbers);
        first += BLOCKS, used = 0;
      }
      const int64_t rest = lengths[i] - done, some = rest < GROUP - used ? rest : GROUP - used;
      float* v = at[i] + done;
      for (int64_t k = 0; k < some; k++) v[k] = v[k] * factor + numbers[used + k] * deviation;
      done += some, used += some;
    }
  }
}
}
