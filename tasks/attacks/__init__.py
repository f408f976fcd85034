"""Attacks on a model of the sample web, each before and after a mitigation: poisoned pages, prompt injection, jailbreaks."""
