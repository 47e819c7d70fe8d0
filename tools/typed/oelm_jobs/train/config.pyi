from train.config import *
