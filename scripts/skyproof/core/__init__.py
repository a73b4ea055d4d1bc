"""What every stage needs, whatever it computes: options, streams, ranks, files. No torch."""
