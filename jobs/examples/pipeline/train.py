"""Fit a straight line to points.csv by gradient descent, point by point."""

import argparse
import csv
import json
import os
import time

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, required=True)
parser.add_argument("--lr", type=float, required=True)
parser.add_argument("--resume")
args = parser.parse_args()

slope, offset, first = 0.0, 0.0, 0
if args.resume:
    with open(args.resume) as file:
        slope, offset, first = json.load(file)
with open("points.csv", newline="") as file:
    points = [(float(x), float(y)) for x, y in csv.reader(file)]
for epoch in range(first + 1, args.epochs + 1):
    total = 0.0
    for x, y in points:
        error = slope * x + offset - y
        total += error * error
        slope, offset = slope - args.lr * error * x, offset - args.lr * error
    with open("model.json.part", "w") as file:
        json.dump([slope, offset, epoch], file)
    os.replace("model.json.part", "model.json")
    print(f"epoch {epoch}: error {(total / len(points)) ** 0.5:.4f}", flush=True)
    time.sleep(0.05)  # a real one would take its time, too
