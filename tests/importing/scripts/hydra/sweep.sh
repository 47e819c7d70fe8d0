#!/bin/bash
eval "$(conda shell.bash hook)"
conda activate hydra-env
python -m mypkg.train -m experiment=mnist optim.lr=0.1,0.01 model=mlp,cnn trainer.max_epochs=5 seed=1,2 \
    hydra.run.dir=outputs/sweep
