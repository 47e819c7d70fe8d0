"""Write points near a straight line to points.csv."""

import argparse
import csv
import os
import random

parser = argparse.ArgumentParser()
parser.add_argument("--points", type=int, required=True)
parser.add_argument("--noise", type=float, required=True)
parser.add_argument("--seed", type=int, required=True)
args = parser.parse_args()

random.seed(args.seed)
with open("points.csv.part", "w", newline="") as file:
    rows = csv.writer(file)
    for _ in range(args.points):
        x = random.uniform(-1, 1)
        rows.writerow([x, 3 * x + 1 + random.gauss(0, args.noise)])
os.replace("points.csv.part", "points.csv")
print(f"{args.points} points", flush=True)
