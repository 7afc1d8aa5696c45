# Packages of any suite of Debian, by ordinary apt from the archive that this machine's apt already uses, with lists,
# state and a cache of our own. Nothing is installed. Sourced by the scripts named fetch, which set $suite and $arch
# first; sets $cache, a folder for what they keep.

fail() { echo "$0: $*" >&2; exit 1; }

use_cache() { # KIND: of what is kept
	cache=${XDG_CACHE_HOME:-$HOME/.cache}/jemtrace/$1/$suite-$arch
	apt=$cache/apt
	mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial"
	touch "$apt/status"
}

# A repository of this machine's apt by its label, or, as long as apt has read no index, by the end of its URI.
repository() { # Debian or Debian-Security
	local found
	found=$(apt-get indextargets --format '$(LABEL)|$(REPO_URI)' 'Created-By: Packages' |
		grep -E "^($1\|.*|\|.*/${1,,}/)\$" | cut -d '|' -f 2) || return
	echo "${found%%$'\n'*}"
}

# apt with nothing of the system's but its way to the network. The cache is the caller's own: no other user for downloads.
private() { # COMMAND OF apt [ARGUMENT...]
	local command=$1
	shift
	"$command" -o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
		-o Dir::State="$apt/state" -o Dir::State::status="$apt/status" -o Dir::Cache="$apt/cache" \
		-o APT::Architecture="$arch" -o APT::Architectures="$arch" -o APT::Sandbox::User= \
		-o Acquire::Languages=none "$@"
}

# Reads the index of the suite, with its security updates where there are any.
read_index() {
	local keyring=/usr/share/keyrings/debian-archive-keyring.gpg archive security line
	line="deb [arch=$arch signed-by=$keyring]"
	archive=$(repository Debian) || fail "this machine's apt knows no Debian archive"
	security=$(repository Debian-Security) || security=
	{
		echo "$line $archive $suite main"
		if [[ $suite != sid && $security ]]; then echo "$line $security $suite-security main"; fi
	} >"$apt/sources.list"
	private apt-get -qq --error-on=any update >"$apt/log" 2>&1 ||
		fail "cannot read $suite for $arch from $archive, or its security updates:"$'\n'"$(<"$apt/log")"
}
