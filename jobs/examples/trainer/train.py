"""Let transformers' Trainer train a tiny GPT-2 on numbers that count up; a stop is heard through oelm_run."""

import argparse

import oelm_run  # in every run; copy that file beside this one to start it by hand, too
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments, set_seed

ENDS = {"bos_token_id": 0, "eos_token_id": 0}


class Counting(torch.utils.data.Dataset):
    """Rows that count up from a number, by a step that varies."""

    def __init__(self, rows, first):
        self.rows = [torch.arange(16) * (1 + (first + row) % 3) + row for row in range(rows)]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, place):
        ids = self.rows[place] % 64
        return {"input_ids": ids, "labels": ids}


class StopWhenAsked(TrainerCallback):
    """Save and end when the run is asked to."""

    def on_step_end(self, args, state, control, **more):
        if oelm_run.should_stop():
            control.should_save = control.should_training_stop = True


def main():
    """Train and evaluate."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--max_steps", type=int, required=True)
    parser.add_argument("--learning_rate", type=float, required=True)
    parser.add_argument("--warmup_steps", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--resume_from_checkpoint")
    given = parser.parse_args()
    set_seed(given.seed)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=16, n_embd=32, n_layer=2, n_head=2, **ENDS))
    arguments = TrainingArguments(
        output_dir=given.output_dir,
        max_steps=given.max_steps,
        learning_rate=given.learning_rate,
        warmup_steps=given.warmup_steps,
        seed=given.seed,
        per_device_train_batch_size=8,
        eval_strategy="steps",
        eval_steps=20,
        save_steps=20,
        save_total_limit=2,
        logging_steps=10,
        report_to="none",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
    )
    data = {"train_dataset": Counting(512, 0), "eval_dataset": Counting(64, 1)}
    trainer = Trainer(model=model, args=arguments, callbacks=[StopWhenAsked()], **data)
    trainer.train(resume_from_checkpoint=given.resume_from_checkpoint)


if __name__ == "__main__":
    main()
