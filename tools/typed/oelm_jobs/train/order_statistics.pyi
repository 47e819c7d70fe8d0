from train.order_statistics import *
