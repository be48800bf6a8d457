"""Other frameworks as processes of their own: what they need, how they are asked, launched, compared."""
