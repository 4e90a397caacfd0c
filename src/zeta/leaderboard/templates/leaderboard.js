// A link to a folded profile unfolds it.
const unfold = () => {
  const profile = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (profile?.tagName === "DETAILS") {
    profile.open = true;
    profile.scrollIntoView();
  }
};
addEventListener("hashchange", unfold);
unfold();
