"""C99 of the functions that a policy calls, by name; a file holds those that it needs."""

HEAD = """\
/* A policy in C99, written by mst_jax; policy_description() says which.

   cc -std=c99 -O3 -march=native -c policy.c               for a program, linked with -lm
   cc -std=c99 -O3 -march=native -shared -fPIC -o policy.so policy.c -lm

   Call policy_reset() at the start of an episode. Its memory is static: one episode at a time, from
   one thread. Not with -ffast-math, under which an action that is not finite is not made zero. */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define POLICY_VERSION {version}
#define POLICY_OBSERVATION_SIZE {observation}
#define POLICY_ACTION_SIZE {action}
#define HISTORY {history}
#define WIDEST {widest}

int policy_version(void);
int policy_observation_size(void);
int policy_action_size(void);
const char *policy_description(void); /* JSON */
void policy_reset(void);
void policy_act(const float *observation, float *action);

int policy_version(void) {{ return POLICY_VERSION; }}
int policy_observation_size(void) {{ return POLICY_OBSERVATION_SIZE; }}
int policy_action_size(void) {{ return POLICY_ACTION_SIZE; }}
const char *policy_description(void)
{{
    return {description};
}}

static float first[WIDEST], second[WIDEST];
static unsigned steps; /* of the episode */
static float frames[HISTORY * POLICY_OBSERVATION_SIZE]; /* the last ones, oldest first */

void policy_reset(void) {{ steps = 0; }}

/* What the network sees. */
static void complete(const float *observation, float *x)
{{
    const size_t size = POLICY_OBSERVATION_SIZE;
    memmove(frames, frames + size, sizeof frames - sizeof(float) * size);
    memcpy(frames + size * (HISTORY - 1), observation, sizeof(float) * size);
    for (size_t h = 0; steps == 0 && h + 1 < HISTORY; h++)
        {before};
    memcpy(x, frames, sizeof frames);{time}
    steps++;
}}
"""
BEFORE = {  # what stands for the frames before an episode's first
    "repeat": "memcpy(frames + size * h, observation, sizeof(float) * size)",
    "zeros": "memset(frames + size * h, 0, sizeof(float) * size)",
}
TIME = {
    "off": "",
    "exact": "\n    x[HISTORY * size] = (float)steps / {limit} - 0.5f;",
    "published": "\n    x[HISTORY * size] = (float)(steps > 0 ? steps - 1 : 0) / {limit} - 0.5f;",
}

TILE = """\
/* y = x W + b, where {rows} neighbouring outputs share their inputs. */
static void tiles_{rows}_{bits}(const float *restrict x, int outputs,
                        const float *restrict weights, const uint{bits}_t *restrict inputs,
                        const uint32_t *restrict starts, const float *restrict bias,
                        float *restrict y)
{{
    for (int tile = 0; tile < outputs / {rows}; tile++) {{
        float sum[{rows}];
        for (int j = 0; j < {rows}; j++) sum[j] = bias[{rows} * tile + j];
        for (uint32_t k = starts[tile]; k < starts[tile + 1]; k++) {{
            const float *restrict own = weights + (size_t){rows} * k;
            const float seen = x[inputs[k]];
            for (int j = 0; j < {rows}; j++) sum[j] += seen * own[j];
        }}
        for (int j = 0; j < {rows}; j++) y[{rows} * tile + j] = sum[j];
    }}
}}
"""

ROWS = """\
/* y = x W + b, where each output has its own few inputs. */
static void rows_{bits}(const float *restrict x, int outputs, const float *restrict weights,
                    const uint{bits}_t *restrict inputs, const uint32_t *restrict starts,
                    const float *restrict bias, float *restrict y)
{{
    for (int o = 0; o < outputs; o++) {{
        const uint32_t end = starts[o + 1];
        uint32_t k = starts[o];
        float a = bias[o], b = 0, c = 0, d = 0; /* four sums, which do not wait for each other */
        for (; k + 4 <= end; k += 4) {{
            a += weights[k] * x[inputs[k]];
            b += weights[k + 1] * x[inputs[k + 1]];
            c += weights[k + 2] * x[inputs[k + 2]];
            d += weights[k + 3] * x[inputs[k + 3]];
        }}
        for (; k < end; k++) a += weights[k] * x[inputs[k]];
        y[o] = (a + b) + (c + d);
    }}
}}
"""

FUNCTIONS = {
    "dense": """\
/* y = x W + b; inputs that are zero, as after a ReLU, cost nothing. */
static void dense(const float *restrict x, int inputs, int outputs, const float *restrict weights,
                  const float *restrict bias, float *restrict y)
{
    for (int o = 0; o < outputs; o++) y[o] = bias[o];
    for (int i = 0; i < inputs; i++) {
        const float *restrict own = weights + (size_t)outputs * i;
        const float seen = x[i];
        if (seen == 0) continue;
        for (int o = 0; o < outputs; o++) y[o] += seen * own[o];
    }
}
""",
    "layer_norm": """\
static float mean(const float *x, int size)
{
    float sums[8] = {0}; /* exact enough, and they do not wait for each other */
    for (int i = 0; i < size; i++) sums[i % 8] += x[i];
    return (((sums[0] + sums[1]) + (sums[2] + sums[3])) +
            ((sums[4] + sums[5]) + (sums[6] + sums[7]))) / size;
}

static void layer_norm(float *restrict x, float *restrict squares, int size, float epsilon)
{
    const float middle = mean(x, size);
    for (int i = 0; i < size; i++) x[i] -= middle;
    for (int i = 0; i < size; i++) squares[i] = x[i] * x[i];
    const float factor = 1 / sqrtf(mean(squares, size) + epsilon);
    for (int i = 0; i < size; i++) x[i] *= factor;
}
""",
    "scale": """\
static void scale(float *restrict x, int size, const float *restrict factor)
{
    for (int i = 0; i < size; i++) x[i] *= factor[i];
}
""",
    "shift": """\
static void shift(float *restrict x, int size, const float *restrict offset)
{
    for (int i = 0; i < size; i++) x[i] += offset[i];
}
""",
    "elu": """\
static void elu(float *x, int size)
{
    for (int i = 0; i < size; i++) if (x[i] < 0) x[i] = expm1f(x[i]);
}
""",
    "relu": """\
static void relu(float *x, int size)
{
    for (int i = 0; i < size; i++) x[i] = x[i] < 0 ? 0 : x[i];
}
""",
    "leaky_relu": """\
static void leaky_relu(float *x, int size, float slope)
{
    for (int i = 0; i < size; i++) x[i] = x[i] < 0 ? slope * x[i] : x[i];
}
""",
    "hyperbolic": """\
static void hyperbolic(float *x, int size)
{
    for (int i = 0; i < size; i++) x[i] = tanhf(x[i]);
}
""",
    "bounded": """\
static void bounded(float *x, int size, float low, float high)
{
    for (int i = 0; i < size; i++) {
        if (!isfinite(x[i])) x[i] = 0;
        x[i] = x[i] < low ? low : x[i] > high ? high : x[i];
    }
}
""",
}
