"""Readers and writers: image stacks, transforms, tables and run folders."""
