// attention: softmax(scale * q k^T + bias) v per head, a block of queries against tiles of 64 keys with a
// running maximum (FlashAttention). Everything is float; sums run over keys in order. Of no keys, nothing.
#pragma once

#include "activation.h"
#include "reduce.h"

struct AttentionParameters {
  Rows q, k, v;
  float* output;
  const float* bias;  // null when absent
  int32_t queries, keys, size, output_stride;
  int32_t bias_head_stride, bias_query_stride, causal;
  float scale;
};

constexpr int KEYS = 64;
constexpr int CHUNK = 32;  // columns of a head that are in shared memory at once

// Lines [first, first + count) and columns [column, column + CHUNK) of one head; zeros outside.
template <int LINES>
DEVICE void load_chunk(float chunk[][CHUNK + 1], const Rows& from, int first, int lines, int head,
                       int column, int size) {
  for (int i = threadIdx.x; i < LINES * CHUNK; i += 256) {
    int line = i / CHUNK, at = i % CHUNK;
    bool inside = first + line < lines && column + at < size;
    chunk[line][at] = inside ? from.at(first + line, head * size + column + at) : 0;
  }
}

// Over the 16 threads that share a row.
template <class Operation>
DEVICE float reduce_sixteen(float value, Operation operation) {
  UNROLL for (int step = 8; step > 0; step /= 2) {
    value = operation(value, __shfl_xor_sync(0xffffffffu, value, step));
  }
  return value;
}

template <int QUERIES, int SIZE>
DEVICE void attend(const AttentionParameters& p) {
  constexpr int LINES = QUERIES / 16, CHUNKS = SIZE / CHUNK;
  SHARED float queries[QUERIES][CHUNK + 1], keys[KEYS][CHUNK + 1], shares[QUERIES][KEYS + 1];
  int across = threadIdx.x % 16, down = threadIdx.x / 16 * LINES;
  int first_query = blockIdx.x * QUERIES, head = blockIdx.y;
  int end = p.causal ? least(p.keys, first_query + QUERIES) : p.keys;
  float mixed[LINES][2 * CHUNKS] = {}, most[LINES], total[LINES];
  UNROLL for (int i = 0; i < LINES; i++) {
    most[i] = -INFINITY;
    total[i] = 0;
  }
  for (int first_key = 0; first_key < end; first_key += KEYS) {
    float scores[LINES][4] = {};
    for (int column = 0; column < p.size; column += CHUNK) {
      __syncthreads();
      load_chunk<QUERIES>(queries, p.q, first_query, p.queries, head, column, p.size);
      load_chunk<KEYS>(keys, p.k, first_key, p.keys, head, column, p.size);
      __syncthreads();
      for (int d = 0; d < CHUNK; d++) {
        UNROLL for (int i = 0; i < LINES; i++) {
          UNROLL for (int j = 0; j < 4; j++) {
            scores[i][j] += queries[down + i][d] * keys[across + 16 * j][d];
          }
        }
      }
    }
    UNROLL for (int i = 0; i < LINES; i++) {
      int query = first_query + down + i;
      float largest = -INFINITY;
      UNROLL for (int j = 0; j < 4; j++) {
        int key = first_key + across + 16 * j;
        bool seen = key < p.keys && (!p.causal || key <= query);
        float score = scores[i][j] * p.scale;
        if (p.bias && seen && query < p.queries) {
          score += p.bias[(int64_t)head * p.bias_head_stride + (int64_t)query * p.bias_query_stride + key];
        }
        scores[i][j] = seen ? score : -INFINITY;
        largest = fmaxf(largest, scores[i][j]);
      }
      largest = fmaxf(most[i], reduce_sixteen(largest, Largest()));
      float base = largest == -INFINITY ? 0 : largest;  // nothing seen so far
      float correction = expf(most[i] - base), sum = 0;
      UNROLL for (int j = 0; j < 4; j++) {
        float share = expf(scores[i][j] - base);
        shares[down + i][across + 16 * j] = share;
        sum += share;
      }
      total[i] = total[i] * correction + reduce_sixteen(sum, Sum());
      most[i] = largest;
      UNROLL for (int c = 0; c < 2 * CHUNKS; c++) mixed[i][c] *= correction;
    }
    UNROLL for (int chunk = 0; chunk < CHUNKS; chunk++) {
      if (chunk * CHUNK < p.size) {
        __syncthreads();
        load_chunk<KEYS>(keys, p.v, first_key, p.keys, head, chunk * CHUNK, p.size);
        __syncthreads();
        for (int key = 0; key < KEYS; key++) {
          float low = keys[key][across], high = keys[key][across + 16];
          UNROLL for (int i = 0; i < LINES; i++) {
            float share = shares[down + i][key];
            mixed[i][2 * chunk] += share * low;
            mixed[i][2 * chunk + 1] += share * high;
          }
        }
      }
    }
  }
  UNROLL for (int i = 0; i < LINES; i++) {
    int query = first_query + down + i;
    float* output = p.output + (int64_t)query * p.output_stride + head * p.size;
    UNROLL for (int c = 0; c < 2 * CHUNKS; c++) {
      int column = c * 16 + across;
      if (query < p.queries && column < p.size) output[column] = total[i] == 0 ? 0 : mixed[i][c] / total[i];
    }
  }
}

KERNEL(attention_64, 256, AttentionParameters) { attend<64, 64>(p); }
KERNEL(attention_128, 256, AttentionParameters) { attend<64, 128>(p); }
KERNEL(attention_1024, 256, AttentionParameters) { attend<16, 1024>(p); }
