"""The ops of recipes: their parameters, checks and names. An op holds no code that draws."""
