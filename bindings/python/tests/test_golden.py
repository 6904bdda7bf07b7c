"""What models compute, against PyTorch's results in the golden files. The limits are those of `wgformer check --golden`."""

import os
import tempfile
import unittest

import numpy as np

import golden
import wgformer

OUTPUTS = 1e-4
LOSSES = 1e-5
DECODERS = ["gpt2", "llama", "mixtral", "gemma3", "phi3"]


class Golden(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.home = tempfile.TemporaryDirectory()

    @classmethod
    def tearDownClass(cls):
        cls.home.cleanup()

    def test_decoders(self):
        for name in DECODERS:
            with self.subTest(name):
                model, file = wgformer.load(golden.folder(name)), golden.tensors(name)
                mask = file.get("attention_mask")
                logits = model.logits(file["input_ids"], mask)
                self.assertEqual((logits.dtype, logits.shape), (np.float32, file["logits"].shape))
                # Experts leave padding out; no output depends on it.
                real = slice(None) if mask is None else mask.astype(bool)
                self.assertLessEqual(golden.error(logits[real], file["logits"][real]), OUTPUTS)
                if "router_aux_loss_coef" not in model.config:
                    loss = model.loss(file["input_ids"], file["labels"], mask)
                    self.assertLessEqual(golden.error([loss], file["loss"]), LOSSES)

    def test_greedy_tokens(self):
        for name in DECODERS:
            with self.subTest(name):
                model, file = wgformer.load(golden.folder(name)), golden.tensors(name, "generated")
                length = file["prompt"].shape[1]
                wanted = [row[length:].tolist() for row in file["greedy"]]
                end = model.config.get("eos_token_id")
                wanted = [row[: row.index(end) + 1] if end in row else row for row in wanted]
                most = file["greedy"].shape[1] - length
                answers = model.generate_batch(list(file["prompt"]), max_tokens=most)
                self.assertEqual([answer.tokens for answer in answers], wanted)
                self.assertIsNone(answers[0].text)
                self.assertEqual([token.id for token in model.stream(file["prompt"][1], max_tokens=most)], wanted[1])

    def test_encoders(self):
        for name in ["bert-masked-lm", "bert-sequence-classification", "bert-token-classification", "modernbert-mean"]:
            with self.subTest(name):
                model, file = wgformer.load(golden.folder(name)), golden.tensors(name)
                mask = file.get("attention_mask")
                logits = model.logits(file["input_ids"], mask, file.get("token_type_ids"))
                real = mask.astype(bool) if mask is not None and logits.ndim == 3 else slice(None)
                self.assertLessEqual(golden.error(logits[real], file["logits"][real]), OUTPUTS)

    def test_states_and_vectors(self):
        model, file = wgformer.load(golden.folder("nomic-bert")), golden.tensors("nomic-bert")
        mask = file["attention_mask"].astype(bool)
        states = model.hidden_states(file["input_ids"], mask, file["token_type_ids"])
        self.assertLessEqual(golden.error(states[mask], file["last_hidden_state"][mask]), OUTPUTS)

        file = golden.tensors("t5-encoder")
        model = wgformer.load(golden.with_tokenizer("t5-encoder", os.path.join(self.home.name, "encoder")))
        mask = file["attention_mask"].astype(bool)
        texts = [golden.text_of(ids[real]) for ids, real in zip(file["input_ids"], mask)]
        means = [states[real].mean(0, dtype=np.float64) for states, real in zip(file["last_hidden_state"], mask)]
        wanted = np.array([mean / np.linalg.norm(mean) for mean in means])
        vectors = model.embed(texts)
        self.assertEqual((vectors.dtype, vectors.shape), (np.float32, (len(texts), model.width)))
        self.assertLessEqual(golden.error(vectors, wanted), OUTPUTS)
        self.assertLessEqual(golden.error(model.embed(texts[1]), wanted[1]), OUTPUTS)

    def test_training_begins_at_the_golden_loss_and_falls(self):
        file = golden.tensors("gpt2")
        model = wgformer.load(golden.folder("gpt2"))
        before = model.generate(file["input_ids"][0][:5], max_tokens=8).tokens
        # The first step's norm is that of the golden gradients.
        gradients = [value for name, value in file.items() if name.startswith("grad.")]
        norm = np.sqrt(sum(np.square(gradient, dtype=np.float64).sum() for gradient in gradients))
        trainer = wgformer.Trainer(model, learning_rate=lambda step: 0.01 if step > 1 else 0.005, weight_decay=0.0, accumulation=2)
        steps = [trainer.step(file["input_ids"]) for _ in range(20)]
        self.assertLessEqual(golden.error([steps[0].loss], file["loss"]), LOSSES)
        self.assertLessEqual(golden.error([steps[0].norm], [norm]), 1e-3)
        self.assertEqual([step.step for step in steps], list(range(1, 21)))
        self.assertLess(steps[-1].loss, 0.7 * steps[0].loss)
        self.assertLess(model.loss(file["input_ids"]), steps[-1].loss)
        # Nothing of it was read: it differs by the weights alone.
        self.assertNotEqual(model.generate(file["input_ids"][0][:5], max_tokens=8).tokens, before)
        still = model.loss(file["input_ids"])
        trainer.step(file["input_ids"], learning_rate=0.0)
        self.assertEqual(model.loss(file["input_ids"]), still)

        path = os.path.join(self.home.name, "saved")
        model.save(path)
        again = wgformer.load(path)
        self.assertEqual(again.loss(file["input_ids"]), still)
        self.assertEqual(again.config["model_type"], "gpt2")

    def test_types(self):
        file = golden.tensors("llama")
        wanted = file["logits"][0]
        for dtype, limit in [("f32", OUTPUTS), ("f16", 1e-2), ("q8_0", 5e-2)]:
            with self.subTest(dtype):
                model = wgformer.load(golden.folder("llama"), dtype=dtype, cache="f16")
                logits = model.logits(file["input_ids"][0])
                self.assertEqual(logits.shape, wanted.shape)
                self.assertLessEqual(golden.error(logits, wanted), limit)


if __name__ == "__main__":
    unittest.main()
