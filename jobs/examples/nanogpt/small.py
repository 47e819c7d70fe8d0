# A model for a laptop: read by train.py before what the command line says.
dataset = "austen_char"
n_layer, n_head, n_embd = 2, 4, 64
block_size, batch_size = 64, 16
eval_interval, eval_iters, log_interval = 50, 10, 10
warmup_iters = 20
