#!/bin/bash
bash one.sh 1e-3 1 &
bash one.sh 1e-3 2 &
bash one.sh 1e-4 1 &
bash one.sh 1e-4 2 &
wait
