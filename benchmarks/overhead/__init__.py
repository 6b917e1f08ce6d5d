"""What a call costs through each library, above the same call made bare."""
