/* Passes over activations in bfloat16 that PyTorch makes of several operations each. One thread each; sums in one order. */

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef uint16_t bf16;

static inline float wide(bf16 value) {
    uint32_t bits = (uint32_t)value << 16;
    float found;
    memcpy(&found, &bits, 4);
    return found;
}

/* To the nearest, ties to even. */
static inline bf16 narrow(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return (bf16)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

/* Of what is not above zero: two to the power of the nearest integer, times a polynomial of the rest; 3e-6 of the value. */
static inline float exponential(float x) {
    x = x < -87.0f ? -87.0f : x;
    float whole = rintf(x * 1.44269504f);
    float rest = x - whole * 0.693147182f;
    float sum = 1.0f / 120;
    sum = sum * rest + 1.0f / 24;
    sum = sum * rest + 1.0f / 6;
    sum = sum * rest + 0.5f;
    sum = sum * rest + 1.0f;
    sum = sum * rest + 1.0f;
    int32_t bits;
    memcpy(&bits, &sum, 4);
    bits += (int32_t)whole << 23;
    memcpy(&sum, &bits, 4);
    return sum;
}

/* 1 / (1 + exp(-x)) */
static inline float sigmoid(float x) {
    float small = exponential(-fabsf(x));
    return (x > 0 ? 1.0f : small) / (1.0f + small);
}

static inline float same(float value) { return value; }

/* Norms: out = x * scale * weight with scale = 1 / sqrt(mean(x * x) + epsilon), of rows [n, h] whose readers take a type.
   Back, of states: scale (g w - scale^2 x mean(x g w)); added to of_weight: scale x g. */
#define NORM(forward, backward, type, read, write)                                                                                 \
    void forward(const float *restrict x, const float *restrict weight, float epsilon, type *restrict out, float *restrict scales, \
                 int64_t n, int64_t h) {                                                                                            \
        for (int64_t row = 0; row < n; row++, x += h, out += h) {                                                                   \
            float squares = 0;                                                                                                      \
            for (int64_t i = 0; i < h; i++) squares += x[i] * x[i];                                                                 \
            float scale = 1.0f / sqrtf(squares / (float)h + epsilon);                                                               \
            scales[row] = scale;                                                                                                    \
            for (int64_t i = 0; i < h; i++) out[i] = write(x[i] * scale * weight[i]);                                               \
        }                                                                                                                           \
    }                                                                                                                               \
    void backward(const type *restrict above, const float *restrict x, const float *restrict weight, const float *restrict scales,  \
                  float *restrict of_states, float *restrict of_weight, int64_t n, int64_t h) {                                     \
        for (int64_t row = 0; row < n; row++, above += h, x += h, of_states += h) {                                                 \
            float scale = scales[row], along = 0;                                                                                   \
            for (int64_t i = 0; i < h; i++) along += x[i] * read(above[i]) * weight[i];                                             \
            along *= scale * scale / (float)h;                                                                                      \
            for (int64_t i = 0; i < h; i++) {                                                                                       \
                float gradient = read(above[i]);                                                                                    \
                of_states[i] = scale * (gradient * weight[i] - along * x[i]);                                                       \
                of_weight[i] += scale * x[i] * gradient;                                                                            \
            }                                                                                                                       \
        }                                                                                                                           \
    }

NORM(norm_forward, norm_backward, bf16, wide, narrow)
NORM(wide_norm_forward, wide_norm_backward, float, same, same)

/* out = gate * sigmoid(gate) * up */
void gated_forward(const bf16 *restrict gate, const bf16 *restrict up, bf16 *restrict out, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        float value = wide(gate[i]);
        out[i] = narrow(value * sigmoid(value) * wide(up[i]));
    }
}

void gated_backward(const bf16 *restrict above, const bf16 *restrict gate, const bf16 *restrict up, bf16 *restrict of_gate,
                    bf16 *restrict of_up, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        float value = wide(gate[i]), gradient = wide(above[i]);
        float share = sigmoid(value);
        of_up[i] = narrow(gradient * value * share);
        of_gate[i] = narrow(gradient * wide(up[i]) * share * (1.0f + value * (1.0f - share)));
    }
}

/* A head's vector, rotated by its node's angles (back: by their opposites); none: as it is. */
static inline void turned(const float *restrict x, const float *restrict cosines, const float *restrict sines, float direction,
                          bf16 *restrict out, int64_t d) {
    int64_t half = d / 2;
    for (int64_t i = 0; i < half; i++) {
        out[i] = narrow(x[i] * cosines[i] - direction * x[i + half] * sines[direction > 0 ? i : i + half]);
        out[i + half] = narrow(x[i + half] * cosines[i + half] + direction * x[i] * sines[direction > 0 ? i + half : i]);
    }
}

/* Vectors [nodes * heads, d] to places, each from where index says. */
void spread(const bf16 *restrict vectors, const int64_t *restrict index, const float *restrict cosines, const float *restrict sines,
            bf16 *restrict out, int64_t places, int64_t heads, int64_t d) {
    float x[d];
    for (int64_t place = 0; place < places; place++, out += d) {
        const bf16 *from = vectors + index[place] * d;
        if (!cosines) {
            memcpy(out, from, (size_t)d * sizeof(bf16));
            continue;
        }
        int64_t node = index[place] / heads;
        for (int64_t i = 0; i < d; i++) x[i] = wide(from[i]);
        turned(x, cosines + node * d, sines + node * d, 1.0f, out, d);
    }
}

/* Vectors at each node's own place, turned back; zeros behind `count` of them up to `all`. */
void collect(const bf16 *restrict places, const int64_t *restrict index, const float *restrict cosines, const float *restrict sines,
             bf16 *restrict out, int64_t count, int64_t all, int64_t heads, int64_t d) {
    float x[d];
    memset(out + count * d, 0, (size_t)((all - count) * d) * sizeof(bf16));
    for (int64_t one = 0; one < count; one++, out += d) {
        const bf16 *from = places + index[one] * d;
        if (!cosines) {
            memcpy(out, from, (size_t)d * sizeof(bf16));
            continue;
        }
        int64_t node = one / heads;
        for (int64_t i = 0; i < d; i++) x[i] = wide(from[i]);
        turned(x, cosines + node * d, sines + node * d, -1.0f, out, d);
    }
}

/* Each node's vectors to its own place, zeros elsewhere. */
void settle(const bf16 *restrict vectors, const int64_t *restrict index, bf16 *restrict out, int64_t count, int64_t places, int64_t d) {
    memset(out, 0, (size_t)(places * d) * sizeof(bf16));
    for (int64_t one = 0; one < count; one++) memcpy(out + index[one] * d, vectors + one * d, (size_t)d * sizeof(bf16));
}

/* Sums of the vectors at all of a node's places, turned back; sums: count * d zeros. */
void gather(const bf16 *restrict above, const int64_t *restrict index, const float *restrict cosines, const float *restrict sines,
            float *restrict sums, bf16 *restrict out, int64_t places, int64_t count, int64_t heads, int64_t d) {
    for (int64_t place = 0; place < places; place++, above += d) {
        float *sum = sums + index[place] * d;
        for (int64_t i = 0; i < d; i++) sum[i] += wide(above[i]);
    }
    for (int64_t one = 0; one < count; one++, sums += d, out += d) {
        if (!cosines) {
            for (int64_t i = 0; i < d; i++) out[i] = narrow(sums[i]);
            continue;
        }
        int64_t node = one / heads;
        turned(sums, cosines + node * d, sines + node * d, -1.0f, out, d);
    }
}

/* Scores [n, keys] of queries, `keys` of them a head, become weights in their place; a query sees `window` keys up to its own. */
void softmax_forward(bf16 *restrict scores, float scale, int64_t n, int64_t keys, int64_t window) {
    enum { LANES = 16 };
    int32_t count = (int32_t)keys, vectors = (count + LANES - 1) / LANES;
    float x[vectors * LANES];
    for (int32_t i = count; i < vectors * LANES; i++) x[i] = -INFINITY;
    for (int64_t row = 0; row < n; row++, scores += keys) {
        int32_t last = (int32_t)(row % keys), first = last >= window ? last - (int32_t)window + 1 : 0;
        for (int32_t i = 0; i < count; i++) {
            float score = wide(scores[i]) * scale;
            x[i] = (i >= first) & (i <= last) ? score : -INFINITY;
        }
        float lanes[LANES], sum = 0;
        memcpy(lanes, x, sizeof lanes);
        for (int32_t vector = 1; vector < vectors; vector++)
            for (int32_t i = 0; i < LANES; i++) lanes[i] = lanes[i] < x[vector * LANES + i] ? x[vector * LANES + i] : lanes[i];
        float highest = lanes[0];
        for (int32_t i = 1; i < LANES; i++) highest = highest < lanes[i] ? lanes[i] : highest;
        for (int32_t i = 0; i < count; i++) {
            float weight = exponential(x[i] - highest);
            x[i] = (i >= first) & (i <= last) ? weight : 0.0f;
            sum += x[i];
        }
        float share = 1.0f / sum;
        for (int32_t i = 0; i < count; i++) scores[i] = narrow(x[i] * share);
    }
}

/* Gradients of weights become those of scores, in their place. */
void softmax_backward(const bf16 *restrict weights, bf16 *restrict above, float scale, int64_t n, int64_t keys) {
    for (int64_t row = 0; row < n; row++, weights += keys, above += keys) {
        float along = 0;
        for (int64_t i = 0; i < keys; i++) along += wide(weights[i]) * wide(above[i]);
        for (int64_t i = 0; i < keys; i++) above[i] = narrow(scale * wide(weights[i]) * (wide(above[i]) - along));
    }
}

typedef bf16 Eight __attribute__((vector_size(16)));

/* Eight rows of eight, a stride apart each, with rows and columns exchanged. */
static inline void transpose_eight(const bf16 *restrict rows, int64_t stride, bf16 *restrict out, int64_t width) {
    Eight a[8], b[8];
    for (int i = 0; i < 8; i++) memcpy(&a[i], rows + i * stride, sizeof(Eight));
    for (int step = 0; step < 3; step++) {
        for (int i = 0; i < 4; i++) {
            b[2 * i] = __builtin_shufflevector(a[i], a[i + 4], 0, 8, 1, 9, 2, 10, 3, 11);
            b[2 * i + 1] = __builtin_shufflevector(a[i], a[i + 4], 4, 12, 5, 13, 6, 14, 7, 15);
        }
        memcpy(a, b, sizeof a);
    }
    for (int i = 0; i < 8; i++) memcpy(out + i * width, &a[i], sizeof(Eight));
}

/* Rows [n, columns] into columns first .. first + n of [columns, width]. */
void transpose(const bf16 *restrict rows, bf16 *restrict out, int64_t first, int64_t n, int64_t columns, int64_t width) {
    enum { SIDE = 32 };
    int64_t whole_rows = n / 8 * 8, whole_columns = columns / 8 * 8;
    out += first;
    for (int64_t row = 0; row < whole_rows; row += SIDE)
        for (int64_t column = 0; column < whole_columns; column += SIDE)
            for (int64_t j = column; j < whole_columns && j < column + SIDE; j += 8)
                for (int64_t i = row; i < whole_rows && i < row + SIDE; i += 8)
                    transpose_eight(rows + i * columns + j, columns, out + j * width + i, width);
    for (int64_t row = 0; row < n; row++)
        for (int64_t column = row < whole_rows ? whole_columns : 0; column < columns; column++)
            out[column * width + row] = rows[row * columns + column];
}
