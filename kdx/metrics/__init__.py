"""Exact measurements that stream over batches. Pure: tensors in, sums kept, fractions out."""
