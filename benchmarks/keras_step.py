"""The report's training step in Keras: for every line on stdin one step, its milliseconds out.

Run by train_step.py with a Python that has TensorFlow; the last line out is the peak memory in MiB.
"""

from __future__ import annotations

import sys
import time

import peak_memory
import tensorflow as tf
import turns
from tensorflow import keras

BATCH_SIZE = 256
layers = keras.layers


def networks() -> tuple[keras.Model, keras.Model]:
    def up(filters: int, strides: int) -> list[keras.Layer]:
        return [
            layers.Conv2DTranspose(filters, 5, strides=strides, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.LeakyReLU(negative_slope=0.3),
        ]

    def down(filters: int) -> list[keras.Layer]:
        return [
            layers.Conv2D(filters, 5, strides=2, padding="same"),
            layers.LeakyReLU(negative_slope=0.3),
            layers.Dropout(0.3),
        ]

    generator = keras.Sequential(
        [
            keras.Input((100,)),
            layers.Dense(7 * 7 * 256, use_bias=False),
            layers.BatchNormalization(),
            layers.LeakyReLU(negative_slope=0.3),
            layers.Reshape((7, 7, 256)),
            *up(128, 1),
            *up(64, 2),
            layers.Conv2DTranspose(
                1, 5, strides=2, padding="same", use_bias=False, activation="tanh"
            ),
        ]
    )
    discriminator = keras.Sequential(
        [keras.Input((28, 28, 1)), *down(64), *down(128), layers.Flatten(), layers.Dense(1)]
    )
    return generator, discriminator


def main() -> None:
    threads = int(sys.argv[1])
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    generator, discriminator = networks()
    optimizers = [keras.optimizers.Adam(1e-3) for _ in range(2)]
    for optimizer, network in zip(optimizers, (generator, discriminator), strict=True):
        optimizer.build(network.trainable_variables)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    images = tf.random.uniform((BATCH_SIZE, 28, 28, 1), -1, 1)

    @tf.function
    def step() -> None:
        with tf.GradientTape() as of_generator, tf.GradientTape() as of_discriminator:
            fake = generator(tf.random.normal((BATCH_SIZE, 100)), training=True)
            real_logits = discriminator(images, training=True)
            fake_logits = discriminator(fake, training=True)
            loss_generator = loss(tf.ones_like(fake_logits), fake_logits)
            loss_discriminator = loss(tf.ones_like(real_logits), real_logits)
            loss_discriminator += loss(tf.zeros_like(fake_logits), fake_logits)
        for tape, value, network, optimizer in (
            (of_generator, loss_generator, generator, optimizers[0]),
            (of_discriminator, loss_discriminator, discriminator, optimizers[1]),
        ):
            variables = network.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(value, variables), variables, strict=True))

    def milliseconds() -> float:
        began = time.perf_counter()
        step()
        return (time.perf_counter() - began) * 1e3

    step()
    turns.serve(milliseconds, f"tensorflow {tf.__version__}")
    print(peak_memory.mebibytes())


if __name__ == "__main__":
    main()
