"""Text that the package carries: novels for the demo, GPT-2's merge ranks."""
