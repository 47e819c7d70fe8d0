# %% [markdown]
# # A study from Python
#
# Three groups on this machine, a few steps each; on a server only the target's name differs. Run it in a clone, after
# `oelm-data demo`, cell by cell in an editor that knows `# %%`, or at once: `python docs/notebook.py`.

# %%
from pathlib import Path

from oelm_jobs import Project, State, data_frame

STUDY = """
question = "Does freezing the Q/K projections cost perplexity in forty steps?"
factors = ["model_type", "freeze_qk"]
seeds = [42]
[train]
data_path = "data/demo/train.bin"
vocab_size = 1024
global_batch = 8
d_model = 32
num_layers = 2
num_heads = 2
d_ff = 64
seq_len = 32
max_steps = 40
warmup_steps = 4
log_interval = 5
val_interval = 20
val_batches = 4
save_interval = 20
[groups]
gpt_base       = { label = "GPT", model_type = "gpt" }
oelm_no_freeze = { label = "OELM, trained", model_type = "oelm", freeze_qk = false }
oelm_freeze    = { label = "OELM, frozen", model_type = "oelm", freeze_qk = true }
[hypotheses]
H1 = { metric = "trainable_params", group = "oelm_freeze", against = "oelm_no_freeze", reduction = [0.01, 0.30] }
H2 = { metric = "final_val_ppl", group = "oelm_freeze", against = "gpt_base", at_most_above = 0.10 }
"""
Path("jobs").mkdir(exist_ok=True)
Path("jobs/notebook.toml").write_text(STUDY)
project = Project()
study = project.study("notebook")
print(study.question, list(study.groups))

# %% [markdown]
# ## Plan and submit
# A plan resolves every run and refuses an unfair comparison. Submitting returns as soon as the target has accepted
# the runs.

# %%
plan = project.plan(study)
print(data_frame(plan)[["run", "group", "seed"]])
submitted = project.submit(plan)
assert all(not each.note for each in submitted)

# %% [markdown]
# ## Wait, or come back later
# `refresh` asks once; `wait` goes on until all runs are over. The runs themselves need neither.

# %%
view = project.wait(study="notebook", show=lambda now: print([f"{run.name} {run.state}" for run in now.runs]))
assert all(run.state is State.DONE for run in view.runs)
print(project.logs(view.runs[0], lines=3))

# %% [markdown]
# ## Results
# Fetching verifies every file, also of runs of this machine. Submitting again leaves alone what is done.

# %%
fetched = project.fetch(study="notebook")
assert all(one.complete for one in fetched.done)
print(data_frame(fetched)[["run", "state", "files", "complete"]])
assert all(each.note == "is done" for each in project.submit(plan))

# %%
report = project.report("notebook")
frame = data_frame(report.runs)
print(frame[["run", "group", "last_step"]])
for verdict in report.verdicts:
    print(verdict.hypothesis.id, verdict.outcome)
files, _ = report.write()
print(f"{len(files)} files in {report.folder}")
project.close()
