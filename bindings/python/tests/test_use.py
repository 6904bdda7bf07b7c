"""How the package is used: texts, options, errors, threads, interrupts, arrays of others, the guide."""

import _thread
import contextlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
import unittest

import numpy as np

import golden
import wgformer

CONFIG = {
    "model_type": "gpt2",
    "architectures": ["GPT2LMHeadModel"],
    "vocab_size": 16,
    "n_positions": 32,
    "n_embd": 16,
    "n_layer": 1,
    "n_head": 2,
}


class Use(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.home = tempfile.TemporaryDirectory()
        cls.decoder = golden.with_tokenizer("gpt2", os.path.join(cls.home.name, "decoder"))
        cls.encoder = golden.with_tokenizer("t5-encoder", os.path.join(cls.home.name, "encoder"))
        cls.model = wgformer.load(cls.decoder)

    @classmethod
    def tearDownClass(cls):
        del cls.model
        cls.home.cleanup()

    def test_what_a_model_is(self):
        model = self.model
        self.assertEqual((model.family, model.vocabulary, model.context, model.width, model.layers), ("gpt2", 97, 64, 48, 2))
        self.assertTrue(model.generates and model.has_tokenizer and model.chats and not model.embeds)
        self.assertEqual(model.config["n_embd"], 48)
        self.assertGreater(model.parameters, 10_000)
        self.assertIn("gpt2", repr(model))
        adapters = wgformer.adapters()
        self.assertTrue(adapters and all(isinstance(adapter.name, str) and adapter.backend for adapter in adapters))
        gpu = wgformer.Gpu(adapters[0].index)
        self.assertEqual((gpu.name, gpu.backend), (adapters[0].name, adapters[0].backend))

    def test_texts(self):
        model = self.model
        self.assertEqual(model.tokenize("0a!").tolist(), [0, 10, 62])
        self.assertEqual(model.detokenize([0, 10, 62]), "0a!")
        answer = model.generate("0a!", max_tokens=8)
        pieces = list(model.stream("0a!", max_tokens=8))
        self.assertEqual("".join(piece.text for piece in pieces), answer.text)
        self.assertEqual(([piece.id for piece in pieces], pieces[-1].finish), (answer.tokens, answer.finish))
        self.assertEqual(model.generate(model.tokenize("0a!"), max_tokens=8), answer)
        self.assertEqual(model.generate_batch(["0a!", "it"], max_tokens=8), [answer, model.generate("it", max_tokens=8)])
        self.assertEqual(model.generate_batch([], max_tokens=8), [])
        drawn = [model.generate("0a!", max_tokens=12, temperature=1.0, top_p=0.9, seed=seed).text for seed in (3, 3, 4)]
        self.assertTrue(drawn[0] == drawn[1] != drawn[2], drawn)
        stop = answer.text[3]
        self.assertNotIn(stop, model.generate("0a!", max_tokens=8, stop=stop).text)

    def test_the_settings_of_files(self):
        path = golden.with_tokenizer("gpt2", os.path.join(self.home.name, "drawn"))
        with open(os.path.join(path, "generation_config.json"), "w") as file:
            json.dump({"do_sample": True, "temperature": 1.2, "max_new_tokens": 9, "eos_token_id": 2}, file)
        model = wgformer.load(path)
        drawn = [model.generate("0a!", seed=seed) for seed in (1, 1, 2)]
        self.assertTrue(drawn[0] == drawn[1] != drawn[2], drawn)
        self.assertTrue(all(len(answer.tokens) <= 9 for answer in drawn))
        self.assertEqual(model.generate("0a!", temperature=0.0), self.model.generate("0a!", max_tokens=9))

    def test_conversations(self):
        messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "what?"}]
        by_hand = self.model.generate("<system>be brief<user>what?<assistant>", max_tokens=6)
        self.assertEqual(self.model.chat(messages, max_tokens=6), by_hand)
        self.assertEqual("".join(token.text for token in self.model.stream(messages, max_tokens=6)), by_hand.text)
        with self.assertRaisesRegex(wgformer.InputError, "role"):
            self.model.chat([{"text": "what?"}])
        with self.assertRaisesRegex(wgformer.InputError, "none"):
            self.model.chat([])

    def test_a_stream_that_is_left(self):
        stream = self.model.stream("0a!", max_tokens=50)
        first = next(stream)
        stream.close()
        self.assertEqual(first.id, self.model.generate("0a!", max_tokens=1).tokens[0])
        for token in self.model.stream("0a!", max_tokens=50):
            break
        self.assertEqual(len(self.model.generate("0a!", max_tokens=2).tokens), 2)
        # Within a stream other calls wait for its answer.
        for token in self.model.stream("0a!", max_tokens=5):
            self.assertEqual(len(self.model.tokenize("ab")), 2)

    def test_errors(self):
        model = self.model
        ids = np.arange(8)
        cases = [
            (wgformer.NoAdapterError, "no such adapter", lambda: wgformer.Gpu("no such adapter")),
            (wgformer.FormatError, "no/such", lambda: wgformer.load("no/such")),
            (wgformer.InputError, "f16", lambda: wgformer.load(self.decoder, dtype="f8")),
            (wgformer.InputError, "context", lambda: wgformer.load(self.decoder, context=65)),
            (wgformer.InputError, "context", lambda: wgformer.load(self.decoder, context=-1)),
            (wgformer.FormatError, "mamba", lambda: wgformer.create({"model_type": "mamba"})),
            (wgformer.InputError, "JSON", lambda: wgformer.create("{")),
            (wgformer.InputError, "temperature", lambda: model.generate("a", temperature=-1.0)),
            (wgformer.InputError, "top_p", lambda: model.generate("a", top_p=float("nan"))),
            (wgformer.InputError, "max_tokens", lambda: model.generate("a", max_tokens=-1)),
            (wgformer.InputError, "prompt", lambda: model.generate("")),
            (wgformer.InputError, "prompt", lambda: model.generate([])),
            (wgformer.InputError, "whole numbers", lambda: model.generate([0.5, 1.5])),
            (wgformer.InputError, "97", lambda: model.generate([3, 97])),
            (wgformer.InputError, "-1", lambda: model.logits([[-1, 2]])),
            (wgformer.InputError, "97 tokens", lambda: model.logits([[97, 2]])),
            (wgformer.InputError, "one length", lambda: model.logits([[1, 2], [3]])),
            (wgformer.InputError, "shape", lambda: model.logits(np.zeros((1, 2, 3), int))),
            (wgformer.InputError, "64 positions", lambda: model.logits(np.zeros(65, int))),
            (wgformer.InputError, "mask", lambda: model.logits(ids, mask=np.ones(3, int))),
            (wgformer.InputError, "logits", lambda: model.hidden_states(ids)),
            (wgformer.InputError, "labels", lambda: model.loss(ids, np.full(8, -100))),
            (wgformer.InputError, "continues texts", lambda: model.embed(["a"])),
            (wgformer.InputError, "learning rate", lambda: wgformer.load(self.decoder).train_step(ids, learning_rate=float("nan"))),
            (wgformer.InputError, "beta1", lambda: wgformer.Trainer(wgformer.load(self.decoder), betas=(1.5, 0.9))),
            (wgformer.InputError, "accumulation", lambda: wgformer.Trainer(model, accumulation=0)),
            (wgformer.InputError, "q8_0", lambda: wgformer.create({**CONFIG, "n_embd": 32}, dtype="q8_0").train_step(ids)),
            (wgformer.FileError, "", lambda: model.save("/proc/no/such")),
        ]
        for number, (kind, words, call) in enumerate(cases):
            with self.subTest(f"{number} {kind.__name__} {words}"):
                with self.assertRaises(wgformer.WgformerError) as caught:
                    call()
                self.assertIs(type(caught.exception), kind, caught.exception)
                self.assertIn(words, str(caught.exception))
        encoder = wgformer.load(self.encoder)
        self.assertTrue(encoder.embeds and not encoder.generates)
        with self.assertRaisesRegex(ValueError, "does not continue"):
            list(encoder.stream("a"))
        with self.assertRaises(TypeError):
            model.generate("a", tempratur=1.0)
        self.assertTrue(issubclass(wgformer.OutOfMemoryError, MemoryError))
        trainer_of = wgformer.load(self.decoder)
        trainer_of.train_step(ids)
        with self.assertRaisesRegex(wgformer.InputError, "trains already"):
            wgformer.Trainer(trainer_of)

    def test_threads(self):
        file = golden.tensors("gpt2")
        models = [self.model, wgformer.load(self.decoder, gpu=wgformer.Gpu())]
        wanted = self.model.logits(file["input_ids"])
        results, ticks = {}, [0]
        done = threading.Event()

        def work(number):
            model = models[number % 2]
            answer = model.generate("0a!", max_tokens=10).tokens
            results[number] = (answer, np.array_equal(model.logits(file["input_ids"]), wanted))

        def tick():
            while not done.is_set():
                ticks[0] += 1
                time.sleep(0.001)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        ticker = threading.Thread(target=tick)
        for thread in threads + [ticker]:
            thread.start()
        for thread in threads:
            thread.join()
        done.set()
        ticker.join()
        self.assertEqual(len(results), 6)
        self.assertTrue(all(result == results[0] and result[1] for result in results.values()), results)

    def test_other_threads_go_on_while_the_gpu_works(self):
        ticks = []
        done = threading.Event()
        ticker = threading.Thread(target=lambda: [ticks.append(time.monotonic()) or time.sleep(0.002) for _ in iter(done.is_set, True)])
        model = wgformer.load(self.decoder)
        ticker.start()
        begin = time.monotonic()
        model.logits(np.zeros((8, 64), int))
        end = time.monotonic()
        done.set()
        ticker.join()
        within = [tick for tick in ticks if begin < tick < end]
        self.assertGreater(len(within), 3, f"{len(within)} ticks in {end - begin:.3f} s")

    def test_ctrl_c(self):
        for call in (
            lambda: self.model.generate("0a!", max_tokens=60),
            lambda: list(self.model.stream("0a!", max_tokens=60)),
        ):
            call()
            begin = time.monotonic()
            call()
            whole = time.monotonic() - begin
            # It ends within the answer, on a busy machine in one of several tries.
            taken = []
            while not taken or min(taken) > 0.8 * whole and len(taken) < 10:
                timer = threading.Timer(0.2 * whole, _thread.interrupt_main)
                with self.assertRaises(KeyboardInterrupt):
                    timer.start()
                    begin = time.monotonic()
                    try:
                        call()
                    finally:
                        taken.append(time.monotonic() - begin)
                    time.sleep(60)
                timer.join()
            self.assertLessEqual(min(taken), 0.8 * whole, taken)
            # The model goes on.
            self.assertEqual(len(self.model.generate("0a!", max_tokens=2).tokens), 2)

    def test_arrays(self):
        ids = golden.tensors("gpt2")["input_ids"]
        wanted = self.model.logits(ids)

        class Other:
            """A tensor of another library."""

            def __init__(self, array):
                self.array = array

            def __dlpack__(self, *arguments, **options):
                return self.array.__dlpack__(*arguments, **options)

            def __dlpack_device__(self):
                return self.array.__dlpack_device__()

        for same in (ids.tolist(), ids.astype(np.int64), np.asfortranarray(ids), ids.astype(np.uint8), Other(ids.astype(np.int64))):
            self.assertTrue(np.array_equal(self.model.logits(same), wanted), type(same))

        class Elsewhere(Other):
            def __dlpack__(self, *arguments, **options):
                raise BufferError("it is on a GPU")

        with self.assertRaisesRegex(wgformer.InputError, "on the CPU.*on a GPU"):
            self.model.logits(Elsewhere(ids))
        self.assertTrue(np.array_equal(self.model.logits(ids[1]), self.model.logits(ids[1:])[0]))
        # What comes out, others take as it is.
        self.assertEqual(wanted.__dlpack_device__()[0], 1)
        shared = np.from_dlpack(wanted)
        self.assertTrue(np.shares_memory(shared, wanted) and wanted.flags.writeable)

    def test_a_new_model_learns_to_repeat(self):
        models = [wgformer.create(CONFIG, seed=5) for _ in range(2)]
        ids = np.tile(np.arange(4), (2, 4))
        losses = [[model.train_step(ids, learning_rate=0.02).loss for _ in range(60)] for model in models]
        self.assertEqual(losses[0], losses[1], "the same bits")
        self.assertLess(losses[0][-1], 0.5)
        self.assertEqual(models[0].generate([0, 1, 2, 3], max_tokens=6).tokens, [0, 1, 2, 3, 0, 1])
        # Another shape of batches, and labels: the first half does not count.
        labels = np.where(np.arange(12) < 6, -100, np.tile(np.arange(4), 3))
        self.assertLess(models[0].train_step(np.tile(np.arange(4), 3), labels, learning_rate=0.0).loss, 0.5)

    def test_the_process_ends_in_the_middle_of_a_stream(self):
        code = f"import wgformer; stream = wgformer.load({self.decoder!r}).stream('0a!', max_tokens=60); print(next(stream).id)"
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
        self.assertTrue(ended.returncode == 0 and ended.stdout.strip().isdigit(), ended)
        self.assertNotRegex(ended.stderr, "Traceback|panicked")

    def test_the_guide(self):
        with open(os.path.join(golden.ROOT, "docs/guide/python.md")) as file:
            blocks = re.findall(r"```python\n(.*?)```", file.read(), re.DOTALL)
        self.assertGreater(len(blocks), 5)
        here = os.getcwd()
        with tempfile.TemporaryDirectory() as home:
            golden.with_tokenizer("gpt2", os.path.join(home, "model"))
            golden.with_tokenizer("t5-encoder", os.path.join(home, "encoder"))
            os.chdir(home)
            try:
                names = {}
                said = io.StringIO()
                for block in blocks:
                    with contextlib.redirect_stdout(said):
                        exec(compile(block, "docs/guide/python.md", "exec"), names)
            finally:
                os.chdir(here)
        self.assertIn("trainer", names)
        for words in ("wgformer.Model gpt2", "(2, 8, 97)", "no such folder"):
            self.assertIn(words, said.getvalue())


if __name__ == "__main__":
    unittest.main()
